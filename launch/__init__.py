"""Starting a pretraining run: on this machine, on the hosts of a file, under Slurm, in Kubernetes.

job         what is to run: configuration, number of processes, devices; refused here if it cannot work
exports     which environment variables travel to other machines
local       torchrun on this machine, watched and started again
hostfile    DeepSpeed's launcher over ssh
slurm       a batch script: srun and torchrun, no ssh
kubernetes  an indexed Job: a pod per node
pretrain    what each process runs
"""
