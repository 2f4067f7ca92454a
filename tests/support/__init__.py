"""What the tests share: repositories, checkpoints, a Git and LFS server."""
