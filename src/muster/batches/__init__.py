"""Pure: what a line of a batch may be, which job it becomes, and what is told of how it ended."""
