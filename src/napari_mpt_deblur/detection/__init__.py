"""Finding nuclei with StarDist, and comparing what is found before and after deblurring."""
