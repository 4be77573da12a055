"""A report in words, as Markdown, and as files.

sentences.py   a report in words: headlines, speeds, the order of rows
facts.py       the machine and the options as lines of text
markdown.py    a report as Markdown
files.py       reports as .html, .md and .json files
"""
