"""Making a federation out of one folder of images, and images where there are none."""
