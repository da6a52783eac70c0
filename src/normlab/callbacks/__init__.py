"""The run's own callbacks. Additions such as early stopping are chosen with `callbacks=`."""
