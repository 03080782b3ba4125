"""A throw-away virtual machine, for kernels that this machine does not run: SELinux enforcing, cgroup v2."""
