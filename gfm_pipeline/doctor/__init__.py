"""Whether this machine can train: what `gfm doctor` looks at, each check a function that returns findings.

finding    what a check says
software   Python, packages, compilers
machine    devices, memory, disk, clock, the process group
run        a configuration: topology, collections, credentials, where the run is written
"""
