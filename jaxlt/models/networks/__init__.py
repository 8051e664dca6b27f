"""Networks and their classifier heads."""
