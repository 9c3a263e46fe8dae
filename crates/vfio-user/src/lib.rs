//! A vfio-user server: a PCI device of a QEMU guest that lives in a process of its own.
