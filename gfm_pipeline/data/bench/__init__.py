"""What the loader costs on this machine, beside its neighbours with the same work.

work        what is to be loaded, and how a contender is described
contenders  one file each: ours, webdataset, GeoTIFFs, the limit, and what else is installed
copies      the samples of a collection in the forms that the others read
measure     one contender, in a process of its own
race        all of them, several times, in random order
report      tables and JSON
"""
