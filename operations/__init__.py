"""What the operator's commands do, one module for each noun; `manage.py` only reads their arguments."""
