"""Random changes of training images, by draws made beforehand."""
