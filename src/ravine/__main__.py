"""``python -m ravine`` is the command ``ravine``; ``torchrun -m ravine`` is several of it."""

from ravine.cli import main

if __name__ == "__main__":
    main()
