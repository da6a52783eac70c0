"""What runs the jobs of a sweep in processes beside this one."""
