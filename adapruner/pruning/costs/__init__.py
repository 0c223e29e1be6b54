"""What the layers of a model cost by their widths: parameters, bytes or time."""
