"""Weights of PyTorch's and safetensors files, read without running their code."""
