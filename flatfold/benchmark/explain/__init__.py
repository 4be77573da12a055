"""Explanations of the times in a report.

layers.py   steps, profiles, lower bounds and changed layers, added to a report
graphs.py   changes of the graph: blocks before and after, and each decision
"""
