"""Trained models for others to use: one file of weights, one that rebuilds the model, one that tells of it.

settings     the configuration of a model as plain values, without the libraries that check it
pretrained   loads what was exported; needs torch, timm and safetensors, and nothing else
extractor    the encoder in the form of a timm model: features of a stage, of all stages, pooled
exporter     writes the folder from a run's checkpoint
merge        several experts made one, where a dense model is wanted
card         the model card
embed        embeddings of a whole collection, to Parquet
"""
