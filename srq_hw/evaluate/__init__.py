"""Images, MATLAB-compatible bicubic, luma PSNR/SSIM and the test-set protocol."""
