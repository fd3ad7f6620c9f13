"""Reads a program and prints it in another layout, which the number that is given draws: functions that follow each
other in another order, with some between them that nobody calls, and so all at other addresses. Nothing else differs.

Imports, classes and constants stay where they are: what is computed at the start may need what stands above.
"""
import ast
import itertools
import random
import sys


def first_line(node):
    """Decorators stand above."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


text = sys.stdin.read()
lines = text.splitlines()
draw = random.Random(int(sys.argv[1]))
printed = []
for is_function, group in itertools.groupby(ast.parse(text).body, lambda node: isinstance(node, ast.FunctionDef)):
    parts = ["\n".join(lines[first_line(node) - 1 : node.end_lineno]) for node in group]
    if is_function:
        parts += [f"def unused_{len(printed)}_{number}():\n    return {number}" for number in range(draw.randrange(8))]
        draw.shuffle(parts)
    printed += parts
print("\n\n\n".join(printed))
