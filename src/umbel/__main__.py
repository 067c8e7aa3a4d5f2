"""``python -m umbel``: the command line. Run by the interpreter alone; it must hold nothing else."""

from .cli import main

if __name__ == "__main__":
    main()
