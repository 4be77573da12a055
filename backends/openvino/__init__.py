"""Target openvino: OpenVINO on the processor.

engine.py    the backend and its engine
build.py     options, and building an engine in a child process
profile.py   the time of each layer
"""
