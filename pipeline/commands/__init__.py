"""What the commands of `pipeline` do, a module for each that takes more than a few lines, and their options."""
