"""One module per verb of the command line: commands/train.py is `dfdc-video train`.

A verb's module has HELP (its line in the help), ORDER (its place in the help, which follows the data), and
two functions: `add_arguments(parser)` and `run(args)`, which returns the exit code. All of them are imported
for `dfdc-video --help`, so heavy libraries are imported inside of the functions.
"""


class Interrupted(Exception):
    """Ctrl-C; the message is the command that continues."""
