"""Measuring: rounds of worker processes, one for each candidate.

protocol.py   the order of rounds and blocks, and when it is enough
process.py    a worker process, as the process that measures sees it
worker.py     the worker process: builds an engine and runs it
job.py        what a worker runs
arrays.py     arrays by name in a file
"""
