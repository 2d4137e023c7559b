"""Host side of the design: `sr_driver.SrDriver` runs images through it, `dma_model` stands in for the board."""
