"""CLIP's and DINOv2's vision transformers, and what prepares them for classification."""
