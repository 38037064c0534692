"""`python -m samplemind`: the command line where its script is not on the path."""

from samplemind.cli.main import main

if __name__ == "__main__":
    main()
