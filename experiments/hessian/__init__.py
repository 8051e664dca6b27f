"""Hessian spectra of finished runs, by class or group of classes."""
