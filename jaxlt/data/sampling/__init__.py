"""Long-tailed selections of a data set, and which image stands where in the training stream."""
