"""Models in the forms of other libraries. Each is a module of its own, which needs its library."""
