"""ComfyUI: a graph of nodes as a job."""
