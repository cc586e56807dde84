"""What coordinator and device both need of models, images, evaluation and export."""
