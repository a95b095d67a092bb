"""The likelihood of a whole data set."""
