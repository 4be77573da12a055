"""The operating system: files, processes and facts about the machine.

atomic.py       folders and files that are written completely or not at all
isolated.py     child processes: starting one and asking it for results
child.py        the side of the child process
trial.py        a graph tried in ONNX Runtime in a child process, which it may crash
trial_child.py  the side of that process
host.py         facts about the machine: processor, GPUs, installed packages
progress.py     how long work reports what it is doing
"""
