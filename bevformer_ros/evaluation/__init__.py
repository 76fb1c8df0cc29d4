"""How good the boxes are: the nuScenes detection protocol, submissions, reports."""
