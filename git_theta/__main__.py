"""``git-theta`` and ``python -m git_theta``."""

from git_theta.cli import main

if __name__ == "__main__":
    main()
