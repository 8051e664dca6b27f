"""How a pretrained vision transformer is adapted: what is added and what of it trains."""
