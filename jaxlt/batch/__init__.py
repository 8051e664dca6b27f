"""What a batch's losses are made of: sums by class, features and classifier apart, class counts."""
