"""napari dock widgets and samples: the only room that knows napari, qtpy and magicgui.

Each widget has a room, and in it the panel shows and asks, the controller decides and knows no Qt, the job runs in a
thread and knows neither; what they share lies beside the rooms. Importing a manifest target loads no torch, stardist or
dask: napari itself brings dask, so it is imported inside the functions that need it.
"""
