"""Programs for AWS Neuron: one rank's share of a program, in the form that its compiler reads, and the compile."""
