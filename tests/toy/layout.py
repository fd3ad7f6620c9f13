"""Reads a program and prints it in another layout: the functions that follow each other in another order, which the
number that is given draws, and so at other addresses. Nothing else differs.

Imports, classes and constants stay where they are: what is computed at the start may need what stands above.
"""
import ast
import itertools
import random
import sys

text = sys.stdin.read()
lines = text.splitlines()
draw = random.Random(int(sys.argv[1]))
printed = []
for is_function, group in itertools.groupby(ast.parse(text).body, lambda node: isinstance(node, ast.FunctionDef)):
    parts = ["\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in group]
    if is_function:
        draw.shuffle(parts)
    printed += parts
print("\n\n\n".join(printed))
