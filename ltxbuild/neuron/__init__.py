"""Programs for AWS Neuron: one rank's share of each, in the form that its compiler reads, and the compile."""
