"""The command line, a file for each verb. `flatfold --help` loads no other library than Typer.

compile.py        build an engine
compare.py        measure a model in every form, and compare with an older report
report.py         show saved reports again
report_table.py   a report as tables for a terminal
verify.py         whether two models compute the same
reduce.py         the smallest part in which two models differ
explain.py        every rewrite, applied or declined, with its reason
inspect.py        the manifest of an engine, or the counts of an .onnx file
cache.py          the engines that were built before
catalogue.py      the lists of models and targets
options.py        options that several verbs share
console.py        stdout, stderr, progress and Ctrl-C
exit_codes.py     the exit code and message of every error
"""
