"""3D shapes: point clouds and meshes."""
