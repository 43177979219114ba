"""Data: annotations, dataset, augmentation and its schedule, samplers, the data module and the synthetic shapes."""

import os

# Albumentations asks a server for its newest version when it is imported, unless told not to: training must not
# depend on, or speak to, the network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
