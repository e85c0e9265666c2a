"""Image models that are workflows of ComfyUI: which graph an order becomes, and which pictures came of it. Pure."""
