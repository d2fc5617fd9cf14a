"""`python -m himap`: the command line where its script is not on the path, in a worker for one."""

from himap.cli import main
from himap.workers import tether

if __name__ == "__main__":
    tether()
    main()
