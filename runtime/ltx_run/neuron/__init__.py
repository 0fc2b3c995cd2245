"""Running programs on AWS Neuron devices."""
