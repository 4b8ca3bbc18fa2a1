"""`python -m cxr_tutorial` is the command `cxr-tutorial`."""

from cxr_tutorial.cli import main

if __name__ == "__main__":
    main()
